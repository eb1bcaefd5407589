"""What zoos learn from: data sets that ship with the dependencies, and those of a user's folder.

Splits are fixed, and validation is never the test set. numpy, no torch.
"""
