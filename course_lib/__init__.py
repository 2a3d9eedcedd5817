"""From RNN to LSTM: the library the lessons import."""

__version__ = "0.1.0"
