"""Answers to the exercises of chapter 10."""

import math

import numpy as np


# Exercise 10.1
def dynamic_base(theta, factor, length, trained, K):
    s = factor * max(length, trained) / trained - (factor - 1)
    return theta * s ** (K / (K - 2))


# Exercise 10.2
def llama3(speeds, factor, low, high, trained):
    turns = trained * speeds / (2 * np.pi)
    share = np.clip((turns - low) / (high - low), 0, 1)
    return share * speeds + (1 - share) * speeds / factor


# Exercise 10.3
def pair_turning(n, K, theta, trained):
    return K / 2 * math.log(trained / (2 * math.pi * n), theta)
