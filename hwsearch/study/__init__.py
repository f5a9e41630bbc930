"""The search: one trial, the study, the front. The only room that knows Optuna."""
