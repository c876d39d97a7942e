"""Low-shot benchmark: is a start worth having when only few cases are labelled?"""
