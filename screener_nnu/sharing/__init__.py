"""A trained model as one file: written without names of cases, installed without trust."""
