"""Models: a room for each, whose declaration is all that the rest of the trainer knows of it.

Declarations import no Keras, so that ``kpdata train --help`` is quick; networks do.
"""
