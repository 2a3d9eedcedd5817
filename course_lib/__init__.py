"""From RNN to LSTM: the library the lessons import. A module imports only from modules of lower rank.

    rank 0   errors  shapes  trees
    rank 1   text  downloads  embedded  layers  gradcheck  optim  decoding  metrics  ngram  budget
    rank 2   cells  datasets  progress
    rank 3   unroll  exercise_book
    rank 4   sequence  exercises
    rank 5   stacked
    rank 6   language_model
    rank 7   checkpoint  plotting
    rank 8   training  doctor
    rank 9   cli
"""

__version__ = "0.1.0"
