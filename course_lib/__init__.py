"""From RNN to LSTM: the library the lessons import. A module imports only from modules of lower rank.

    rank 0   errors  shapes  trees  connected  solved  learner_call  verse  grading_watch  grading_worker
    rank 1   text  downloads  embedded  layers  gradcheck  optim  filters  metrics  ngram  budget  weights  diagnosis
    rank 1   roofline  archive  attention_by_hand  date_forms  poems  novelty  code_judge  association  text_properties
    rank 1   grading_plan
    rank 2   constraints  cells  datasets  progress  languages  ngram_classifier  decoding  units  dates  run_folder
    rank 2   workspace  grading
    rank 3   unroll  caches  variants  jacobians  exercise_book  tensor_call  torch_sequence  torch_triton  torch_tokens
    rank 3   attention  pairs  torch_dropout  torch_parallel
    rank 4   sequence  torch_kernels  summaries  labelled
    rank 5   stacked  rnn_book  bodies
    rank 6   language_model  lstm_book  jacobian_book  torch_stack
    rank 7   checkpoint  plotting  variant_book  torch_book  window_book  conversion_book  classifier_book  torch_lstm
    rank 7   attention_book  beam_book  sampling_book  scaling_book  torch_scan  probes
    rank 8   clamping  portraits  sampling_plots  writing  doctor  diagrams  exercises  engines  torch_model  seq2seq
    rank 8   classifier_model  explorer
    rank 9   torch_engine  classifier  translator  sampling_explorer  gate_explorer  gradient_explorer  grading_kernel
    rank 10  translation  classifier_engine
    rank 11  translation_engine  classifier_task
    rank 12  translation_task
    rank 13  tasks
    rank 14  training  cli_models
    rank 15  cli_generate  cli_train  cli_classify  cli_grade
    rank 16  cli_chat
    rank 17  cli
"""

__version__ = "0.1.0"
