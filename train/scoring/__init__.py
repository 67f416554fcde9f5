"""From a model's answers to scores, tables and pictures, and to what two models differ in."""
