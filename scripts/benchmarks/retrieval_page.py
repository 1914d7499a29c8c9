"""Makes the tables of docs/benchmarks.md from the results of `scripts/bench-retrieval`."""

from page import circumstances, number, table

RECALLS = (0.95, 0.99)


def scan(title, part):
    rows = []
    for batch, faiss in part["faiss"].items():
        ours = part["ours"]["F32"][batch]
        coarse = [part["ours"][name][batch]["ms"] for name in ("F16", "I8")]
        rows.append([
            batch, number(ours["ms"]), *(number(ms) for ms in coarse),
            number(faiss["default_ms"]), number(faiss["tuned_ms"]),
            f"{faiss['tuned_ms'] / ours['ms']:.2f}", f"{ours['ms'] / coarse[0]:.2f}",
            f"{ours['ms'] / coarse[1]:.2f}", f"{ours['gb_s'] / ours['read_gb_s']:.0%}",
            f"{ours['gflop_s'] / ours['peak_gflop_s']:.0%}",
        ])
    recalls = "; ".join(
        f"{name} {part['ours'][name]['recall']:.4f}, 40 candidates scored again "
        f"{part['ours'][name]['recall_again']:.4f}"
        for name in ("F16", "I8")
    )
    head = ["queries", "f32 ms", "f16 ms", "i8 ms", "faiss ms", "faiss tuned ms", "faiss tuned / f32",
            "f32 / f16", "f32 / i8", "of read bandwidth", "of f32 multiply-add peak"]
    return (
        f"### {title}\n\nInstructions: {part['ours']['F32']['instructions']}. {circumstances(part)} Tuned: "
        "faiss's BLAS threshold at 1, blocks of 16,384 rows. Bandwidth and peak are measured in the same "
        f"run. Recall@10: {recalls}.\n\n" + table(head, rows)
    )


def at_recall(searches, wanted):
    """Returns the microseconds per query at a recall, interpolated between the neighbouring measurements."""
    before = None
    for ef, recall, micros in sorted(searches):
        if recall >= wanted:
            if before is None or recall == before[0]:
                return micros
            share = (wanted - before[0]) / (recall - before[0])
            return before[1] + share * (micros - before[1])
        before = (recall, micros)
    return None


def graphs(part):
    reference = part["faiss"]["searches"]
    rows = []
    kinds = [("faiss IndexHNSWFlat", part["faiss"]["searches"], part["faiss"]["build_s"]),
             ("hnswlib", part["hnswlib"]["searches"], part["hnswlib"]["build_s"])]
    for name in ("f32", "f16", "i8", "usearch-f32", "usearch-f16", "usearch-i8", "faiss_file"):
        figures = part.get(name, {})
        kinds += [(f"{kind} ({name})", measured["searches"], figures.get("build_s"))
                  for kind, measured in figures.items() if isinstance(measured, dict)]
    for name, searches, build in kinds:
        row = [name, "" if build is None else number(build)]
        for wanted in RECALLS:
            ours, theirs = at_recall(searches, wanted), at_recall(reference, wanted)
            row += [number(ours), f"{theirs / ours:.2f}"] if ours and theirs else ["not reached", ""]
        rows.append(row)
    head = ["graph", "build s", "us at recall .95", "faiss / it", "us at recall .99", "faiss / it"]
    return (
        "### Approximate search\n\nReal vectors, M 16, efConstruction 128, one thread, times between "
        f"the measured efs interpolated. {circumstances(part)}\n\n" + table(head, rows)
    )


def bm25(title, part):
    ours = min(part["ours"]["mean_us"], part["ours_again"]["mean_us"])
    rows = [["ours", number(ours), number(part["ours"]["p50_us"]), number(part["ours"]["build_s"]), "1"]]
    peer = part["bm25s"]
    rows.append(["bm25s, one query a call", number(peer["one_us"]), "", number(peer["build_s"]),
                 f"{peer['one_us'] / ours:.2f}"])
    rows.append(["bm25s, all in one call", number(peer["batch_us"]), "", "", f"{peer['batch_us'] / ours:.2f}"])
    if peer := part.get("anserini"):
        ratio = peer["p50_us"] / part["ours"]["p50_us"]
        rows.append(["Anserini", number(peer["mean_us"]), number(peer["p50_us"]), number(peer["build_s"]),
                     f"{peer['mean_us'] / ours:.2f} (medians {ratio:.2f})"])
    head = ["BM25, top 10, one thread", "us a query", "median us", "index s", "it / ours"]
    return f"### {title}\n\n{circumstances(part)}\n\n" + table(head, rows)


def encode(part):
    rows = []
    for batch, ours in sorted(part["ours"].items(), key=lambda item: int(item[0])):
        peers = part["peers"][batch]
        onnx, transformers = peers["onnxruntime"], peers["sentence_transformers"]
        runtime = part["runtime"][batch]
        rows.append([batch, number(ours), number(runtime), number(onnx), f"{ours / onnx:.2f} ({runtime / onnx:.2f})",
                     number(transformers), f"{ours / transformers:.2f} ({runtime / transformers:.2f})"])
    peer = part["peers"]["corpus"]["sentence_transformers"]
    for size, ours in part["corpus"].items():
        runtime = part["runtime"][size]
        rows.append([f"{size} (corpus)", number(ours), number(runtime), "", "",
                     number(peer), f"{ours / peer:.2f} ({runtime / peer:.2f})"])
    head = ["texts at a time", "ours, texts/s", "with ONNX Runtime's products", "onnxruntime", "ours / it",
            "sentence-transformers", "ours / it"]
    return ("### Encoder\n\nall-MiniLM-L6-v2, 32-word texts; ratios with ONNX Runtime's products, as without tiles, in "
            f"brackets. {circumstances(part)}\n\n") + table(head, rows)


def server(part):
    rows = []
    for name, key in (("retriever-server", "ours"), ("FastAPI, transformers, faiss", "python")):
        figures = part[key]
        latency = figures["latency_ms"]
        rows.append([name, number(figures["queries_per_s"]), number(latency["p50"]), number(latency["p99"]),
                     number(figures["start_s"])])
    ratio = part["ours"]["queries_per_s"] / part["python"]["queries_per_s"]
    head = ["dense, 64 clients", "queries/s", "p50 ms", "p99 ms", "start s"]
    return f"### Whole server\n\nRatio of queries per second: {ratio:.1f}. {circumstances(part)}\n\n" + table(head, rows)


def cost(part):
    rows = [
        [f"{int(count):,}", number(figures["build_s"]), number(figures["index_mib"]), number(figures["start_s"]),
         number(figures["resident_mib"]), number(figures["query_us"])]
        for count, figures in part.items() if count != "circumstances"
    ]
    head = ["passages of 100 words (BM25)", "index s", "index MiB", "start to first answer s", "resident MiB",
            "us a query"]
    return f"### Cost of more passages\n\n{circumstances(part)}\n\n" + table(head, rows)


def vector_cost(part):
    rows = [
        [f"{int(count):,}", number(figures["start_s"]), number(figures["own_mib"]), number(figures["mapped_mib"]),
         number(figures["mapped_mib"] * 2**20 / int(count))]
        for count, figures in part.items() if count != "circumstances"
    ]
    head = ["vectors of 384 (f32, in place)", "start to first answer s", "own memory MiB", "mapped MiB",
            "mapped bytes a vector"]
    return f"### Cost of more vectors\n\n{circumstances(part)}\n\n" + table(head, rows)


def tables(results):
    makers = {
        "small-scan": lambda part: scan("Exact search, 10,000 real vectors of 384", part),
        "scan": lambda part: scan("Exact search, 100,000 real vectors of 384", part),
        "large-scan": lambda part: scan("Exact search, 1,000,000 random vectors of 384", part),
        "graphs": graphs,
        "bm25": lambda part: bm25("BM25, 100,000 passages", part),
        "large-bm25": lambda part: bm25("BM25, 1,000,000 passages", part),
        "encode": encode, "server": server, "cost": cost, "vector-cost": vector_cost,
    }
    return "\n" + "".join(make(results[name]) for name, make in makers.items() if name in results)
