"""How good a network is: data, base weights, training, the ladder of rungs."""
