"""``ptychrome report``: the figures of the paper for any particles from any results, as one page."""
