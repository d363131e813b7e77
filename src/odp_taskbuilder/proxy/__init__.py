"""Proxy tasks: which cheap simulation ranks candidates of a task as the full one would, and which candidate a fleet should train.

A search space is written with `Candidate` and `ProxyTaskConfig` (docs/proxy_tasks.md); the steps are `variance`, `selection`, `search`
and `ranking`.
Uses simulation/, build.py and what is below. How a round runs is simulation/'s.
"""

from odp_taskbuilder.proxy.space import Candidate as Candidate
from odp_taskbuilder.proxy.space import ProxyTaskConfig as ProxyTaskConfig
