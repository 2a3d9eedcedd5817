"""Draw the picture of the README: what the shipped Shakespeare model finds surprising. Run: python docs/picture.py"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from course_lib import checkpoint, language_model, layers, plotting

SENTENCE = "The quick brown fox jumps over the lazy dog."

model = checkpoint.load("shakespeare")
tokens = model.tokenizer.encode(SENTENCE)
state = language_model.initial_state(model.params, 1)
logits, _, _ = language_model.forward(model.params, tokens[:-1, None], state)
nats = -layers.log_softmax(logits)[np.arange(len(tokens) - 1), 0, tokens[1:]]
plt.style.use(plotting.STYLE)
ax = plotting.surprise(SENTENCE[1:], nats, "What an LSTM that has read only Shakespeare finds surprising")
ax.figure.savefig(Path(__file__).with_name("quick_brown_fox.png"), dpi=120, metadata={"Software": None})
