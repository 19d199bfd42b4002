"""How good a reward is: agreement with preferences, robustness, consistency, explanations.

- `raters`: the reward and judges under one interface.
- `evaluation`: preferences, accuracies, best-of-N, length control.
- `attacks`: tricks in a response that may raise a reward.
- `consistency`: whether wordings, seeds and number formats change a reward.
- `agreement`: how far two rewards of the same groups agree.
- `explain`: which words contribute to an F1.
"""
