"""The Beam pipeline: plan, write, seal."""
