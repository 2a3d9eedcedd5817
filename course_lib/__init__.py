"""From RNN to LSTM: the library the lessons import. A module imports only from modules of lower rank.

    rank 0   errors  shapes  trees  solved  learner_call
    rank 1   text  downloads  embedded  layers  gradcheck  optim  decoding  metrics  ngram  budget  weights  diagnosis
    rank 2   cells  datasets  progress
    rank 3   unroll  caches  variants  jacobians  exercise_book
    rank 4   sequence
    rank 5   stacked  rnn_book
    rank 6   language_model  lstm_book  jacobian_book
    rank 7   checkpoint  plotting  variant_book
    rank 8   training  doctor  diagrams  exercises
    rank 9   cli
"""

__version__ = "0.1.0"
