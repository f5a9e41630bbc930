"""What a run was asked for: its settings, its pictures, and which costs its budgets admit."""
