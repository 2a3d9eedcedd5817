"""From RNN to LSTM: the library the lessons import. A module imports only from modules of lower rank.

    rank 0   errors  shapes  text  trees  downloads  embedded
    rank 1   layers  gradcheck  optim  decoding  metrics  ngram  datasets
    rank 2   cells
    rank 3   unroll
    rank 4   sequence
    rank 5   stacked
    rank 6   language_model
    rank 7   checkpoint  plotting
    rank 8   training  doctor  exercises
    rank 9   cli
"""

__version__ = "0.1.0"
