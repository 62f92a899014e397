# SPDX-License-Identifier: MPL-2.0
"""The faults of a disk under a store that goes on living, one after the other, under load."""

FAULTS = ()


class Faults:
    def __init__(self, rounds):
        self.rounds = rounds
