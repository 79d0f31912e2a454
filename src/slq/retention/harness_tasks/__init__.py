"""RealWorldQA and OCRBench in the format of lm-evaluation-harness, which does not have them."""
