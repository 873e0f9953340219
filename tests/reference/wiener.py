"""The dual vectors from their definition in NumPy, with dense matrices and an inverse. Slow and plain."""

import numpy as np


def ledoit_wolf(samples):
    """Covariance and shrinkage as Ledoit and Wolf 2004 define them, sample by sample."""
    deviations = samples - samples.mean(0)
    n, width = deviations.shape
    empirical = deviations.T @ deviations / n
    scale = np.trace(empirical) / width
    distance = np.sum((empirical - scale * np.eye(width)) ** 2)
    spread = sum(np.sum((np.outer(row, row) - empirical) ** 2) for row in deviations) / n**2
    shrinkage = min(spread, distance) / distance
    return (1 - shrinkage) * empirical + shrinkage * scale * np.eye(width), shrinkage


def dual_vectors(weight, covariance, targets, noise):
    """Reading and writing vectors of each target row."""
    seen = weight @ covariance @ weight.T
    tau = np.trace(seen) / len(weight)
    reading = targets @ np.linalg.inv(seen + noise * tau * np.eye(len(weight))) @ weight
    return reading, reading @ covariance


def posterior_mean(weight, covariance, noise_variance, target):
    """The subject's expected deviation given its object, where the precisions of prior and likelihood add up."""
    precision = np.linalg.inv(covariance) + weight.T @ weight / noise_variance
    return np.linalg.solve(precision, weight.T @ target / noise_variance)
