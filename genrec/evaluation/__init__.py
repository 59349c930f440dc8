"""How good a recommender is: metrics over ranked lists, and the baselines every table must hold."""
