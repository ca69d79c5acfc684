"""Answers to the exercises of chapter 4."""

import numpy as np


# Exercise 4.1
def frequencies(K, theta):
    return 1 / theta ** (np.arange(0, K, 2) / K)


# Exercise 4.2
def rotate_halves(x, positions, speeds):
    angles = np.outer(positions, speeds)
    a, b = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1)


# Exercise 4.3
def halves_order(K):
    return np.arange(K).reshape(K // 2, 2).T.ravel()


# Exercise 4.4
angle = 0.03
