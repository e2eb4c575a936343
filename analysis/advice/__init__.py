"""Advice on settings: recommendations, Pareto-optimal cells and the models behind them."""
