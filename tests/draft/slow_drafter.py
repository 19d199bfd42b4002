"""The drafter in plain Python: what the tests and the benchmarks hold the fast one to."""

import numpy as np


class Rate:
    def __init__(self):
        self.right, self.tried = 1.5, 3.0

    def chance(self):
        return self.right / self.tried

    def learn(self, right):
        self.right, self.tried = 0.995 * self.right + right, 0.995 * self.tried + 1


class SlowDrafter:
    """The same rules over plain lists, without an index and without hashes."""

    def __init__(self, max_draft):
        self.max_draft = max_draft
        self.rates, self.votes, self.outputs = {}, {}, []

    def open(self, sources, start=()):
        self.outputs.append(([list(source) for source in sources] + [[-1, *start]], []))
        return len(self.outputs) - 1

    def extend(self, handle, tokens):
        sources, guesses = self.outputs[handle]
        if not tokens:
            return
        for (token, rate, *_), right in zip(guesses, tokens, strict=False):
            rate.learn(token == right)
            if token != right:
                break
        guesses.clear()
        sources[-1] += tokens

    def propose(self, handle, limit, threshold):
        sources, guesses = self.outputs[handle]
        tail, draft, chances, chance = sources[-1][-8:], [], [], 1.0
        guesses.clear()
        last = None
        while True:
            found = [self.guess(sources, k, tail, last) for k in range(len(sources))]
            found = [guess for guess in [*found, self.predict(tail)] if guess]
            if not found:
                break
            last = max(found, key=lambda guess: guess[1].chance())  # the first of equals
            guesses.append(last)
            chance *= last[1].chance()
            if len(draft) >= min(limit, self.max_draft) or not chance >= np.float32(threshold):
                break
            draft.append(last[0])
            chances.append(np.float32(chance))
            tail = [*tail, last[0]]
        return draft, chances

    def guess(self, sources, k, tail, last):
        tokens = sources[k]
        if last and last[2] == k and tokens[last[4] + 1 : last[4] + 2] not in ([], [-1]):
            length, position = min(8, last[3] + 1), last[4] + 1
        else:
            length, position = self.look_up(tokens, tail)
        if not length:
            return None
        kind = "own" if k == len(sources) - 1 else min(k, 3)
        rate = self.rates.setdefault((kind, length), Rate())
        return tokens[position], rate, k, length, position

    @staticmethod
    def look_up(tokens, tail):
        ends = [i for i in range(len(tokens) - 1) if tokens[i] == tail[-1] and tokens[i + 1] != -1]
        best = (0, 0)
        for end in reversed(ends[-64:]):
            length = 1
            while length < min(8, len(tail), end + 1) and tokens[end - length] == tail[-1 - length]:
                length += 1
            if length > best[0]:
                best = (length, end + 1)
        return best

    def predict(self, tail):
        for m in range(min(4, len(tail)), 0, -1):
            if (context := tuple(tail[-m:])) in self.votes:
                token, votes, total = self.votes[context]
                grade = min(votes, 3) if votes == total else 4 + 4 * votes // total
                return token, self.rates.setdefault(("history", m, grade), Rate()), -1, 0, 0
        return None

    def close(self, handle, learn):
        tokens = self.outputs[handle][0][-1]
        for i in range(1, len(tokens) if learn else 0):
            for m in range(1, min(4, i) + 1):
                context = tuple(tokens[i - m : i])
                token, votes, total = self.votes.get(context, (tokens[i], 0, 0))
                votes += 1 if token == tokens[i] else -1
                if votes == 0:
                    token, votes = tokens[i], 1
                self.votes[context] = token, votes, total + 1
