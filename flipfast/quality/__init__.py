"""How good a reward is: agreement with preferences, robustness, consistency, explanations.

- `raters`: the reward and judges behind one interface.
- `evaluation`: preferences, accuracies, the best of each group, length control.
- `attacks`: tricks in a response that may raise a reward.
- `consistency`: whether wordings, seeds and number formats change a reward.
- `agreement`: how far two rewards of the same groups agree.
- `explain`: which words made an F1.
"""
