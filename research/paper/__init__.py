"""The paper's experiments, at any size: each a module with `run(study)`, its result a JSON file that docs/claims.md is written from."""
