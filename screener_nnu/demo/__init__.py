"""The whole pipeline on computed CT: steps that run it, figures and a page that show it."""
