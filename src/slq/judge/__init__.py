"""The frozen model as a judge of hits, beside the embedding that found them; and as a rewriter and explainer of a search.

choose_question(model, pairs)           the question whose yes and no tell what matches best, on pairs not used to choose it
Judge(model, question)                  how likely the model says yes of items and texts, from kept prefixes where that is exact
calibrate(judge, examples)              the probability below which a hit is cut, for a wanted precision
judge_hits(judge, query, items)         hits in another order, and without those that the model says no to
rewrite(model, queries)                 what the model says a query means, to be searched for beside it
explain(encoder, item, query)           where in the image, and on which words, a similarity rests
ask(model, item, question)              an answer about an item
"""

from slq.judge.asking import ask
from slq.judge.calibration import Calibration, Example, calibrate, examples_of
from slq.judge.choosing import QuestionChoice, choose_question, matching
from slq.judge.explaining import Explanation, deletion_test, explain
from slq.judge.grid import Grid, draw, grid_of
from slq.judge.hits import JudgedHit, JudgedHits, judge_hits
from slq.judge.rewriting import Rewriting, fused, rewrite
from slq.judge.scoring import QUESTIONS, Judge, Question, Scores

__all__ = [
    "QUESTIONS",
    "Calibration",
    "Example",
    "Explanation",
    "Grid",
    "Judge",
    "JudgedHit",
    "JudgedHits",
    "Question",
    "QuestionChoice",
    "Rewriting",
    "Scores",
    "ask",
    "calibrate",
    "choose_question",
    "deletion_test",
    "draw",
    "examples_of",
    "explain",
    "fused",
    "grid_of",
    "judge_hits",
    "matching",
    "rewrite",
]
