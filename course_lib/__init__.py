"""From RNN to LSTM: the library the lessons import. A module imports only from modules of lower rank.

    rank 0   errors  shapes  trees  solved  learner_call
    rank 1   text  downloads  embedded  layers  gradcheck  optim  decoding  metrics  ngram  budget  weights  diagnosis
    rank 1   roofline
    rank 2   cells  datasets  progress  languages  ngram_classifier
    rank 3   unroll  caches  variants  jacobians  exercise_book  tensor_call  torch_sequence  torch_triton
    rank 4   sequence  torch_kernels
    rank 5   stacked  rnn_book
    rank 6   language_model  lstm_book  jacobian_book  torch_stack
    rank 7   checkpoint  plotting  variant_book  torch_book  window_book  conversion_book  classifier_book  torch_lstm
    rank 8   doctor  diagrams  exercises  engines  torch_model  classifier_model
    rank 9   torch_engine  classifier
    rank 10  training
    rank 11  cli
"""

__version__ = "0.1.0"
