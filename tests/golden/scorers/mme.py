"""MME: each answer as its program reads it, and the points that it prints. The program is in an archive of its repository and needs scikit-learn."""
import contextlib
import io
import pathlib
import random
import tempfile
import zipfile

CODE = "BradyFU/Awesome-Multimodal-Large-Language-Models, branch Evaluation, tools/eval_tool.zip, calculation.py"
BEGIN = ("Yes", "yes", "No", "no", "YES", "NO", "Know", "Nope", "", " ", "  no", "The answer is yes", "I no", "eyes", "y", "n", "Y", "true", "Not", "not sure", "*Yes*", '"No"', "(no)", "１", "да", "ﬁ no", "1. Yes", "\nYes", "A\nNo",
         "Yes\nno", "İ no")
END = ("", "", "", ".", ", it is.", " and no", "!", "  ", " 7", ", the image shows a python code", "\nNo")
IMAGES = 9


def make(checkout: pathlib.Path) -> dict:
    official: dict = {"__name__": "calculation"}
    exec(zipfile.ZipFile(checkout / "tools/eval_tool.zip").read("eval_tool/calculation.py"), official)
    rng, program = random.Random(0), official["calculate_metrics"]()
    cases: dict[str, list[tuple[str, str]]] = {}
    for categories in official["eval_type_dict"].values():
        for category in categories:
            share = rng.random()  # of right answers, so that categories differ
            cases[category] = []
            for label in ("Yes", "No") * IMAGES:
                cases[category].append((label + rng.choice(END) if rng.random() < share else rng.choice(BEGIN) + rng.choice(END), label))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(printed := io.StringIO()):
        for category, pairs in cases.items():
            lines = (f"{i // 2}.jpg\tquestion?\t{label}\t{_one_line(text)}\n" for i, (text, label) in enumerate(pairs))
            (pathlib.Path(folder) / f"{category}.txt").write_text("".join(lines), newline="\n")
        program.process_result(folder)
    points, totals = {}, []
    for line in printed.getvalue().splitlines():
        name, _, value = line.strip().partition(" score:")
        if name == "total":
            totals.append(float(value))
        elif value:
            points[name.strip()] = float(value)
    return {"answers": [[category, label, text, program.parse_pred_ans(_one_line(text).lower() + "\n")] for category, pairs in cases.items() for text, label in pairs],
            "points": points, "totals": dict(zip(map(str.lower, official["eval_type_dict"]), totals, strict=True))}


def _one_line(text: str) -> str:
    """As the program's readme wants answers: without line breaks."""
    return text.replace("\n", "")
