"""A retrieval server of FastAPI, transformers on the CPU and faiss, as users of Search-R1's Python stack run it.

It encodes and searches each request alone:

    python_server.py MODEL VECTORS DIMENSION CORPUS PORT
"""

import json
import sys

import faiss
import numpy
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModel, AutoTokenizer

MAX_TOKENS = 256


class Request(BaseModel):
    queries: list[str]
    topk: int | None = None
    return_scores: bool = False


def main(folder, vectors, dimension, corpus, port):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    index = faiss.IndexFlatIP(int(dimension))
    index.add(numpy.fromfile(vectors, dtype="<f4").reshape(-1, int(dimension)))
    with open(corpus, encoding="utf-8") as file:
        passages = [json.loads(line) for line in file]
    app = FastAPI()

    @torch.no_grad()
    def encode(texts):
        inputs = tokenizer(
            texts, max_length=MAX_TOKENS, padding=True, truncation=True, return_tensors="pt"
        )
        states = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None].to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1).numpy().astype(numpy.float32)

    @app.post("/retrieve")
    def retrieve(request: Request):
        scores, rows = index.search(encode(request.queries), request.topk or 3)
        result = []
        for query_scores, query_rows in zip(scores.tolist(), rows.tolist()):
            documents = [passages[row] for row in query_rows]
            if request.return_scores:
                scored = zip(documents, query_scores)
                result.append([{"document": document, "score": score} for document, score in scored])
            else:
                result.append(documents)
        return {"result": result}

    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
