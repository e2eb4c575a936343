"""Which setting to use: recommendations, Pareto-optimal cells and the models behind them."""
