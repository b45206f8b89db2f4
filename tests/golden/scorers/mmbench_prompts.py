"""MMBench: what LLaVA asks for a table. Needs pandas."""
import importlib.util
import json
import pathlib
import sys
import tempfile
import types
from unittest import mock

CODE = "haotian-liu/LLaVA, llava/eval/model_vqa_mmbench.py"
HEAD = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tsource\tl2-category\tcomment\tsplit\n"
ROWS = (
    "7\tWhich one?\t\tred\tblue\t\t\tA\tcolor\tIMAGE\ts\tl2\t\tdev",
    "8\tWhich one?\tThe map is old.\tred\tblue\tgreen\tyellow\tB\tcolor\tIMAGE\ts\tl2\t\tdev",
    '9\tWhich one?\t"Two lines:\nA ""quoted"" one\tand a tab"\t5 °C\t"a, b"\tit\'s "so"\t?\tB\tcolor\tIMAGE\ts\tl2\tn\tdev',
    "10\t哪个？\t\t红\t蓝\t绿\t\tC\tcolor\tIMAGE\ts\tl2\t\tdev",
    "11\tWhich one?\tnan\t 1 \tNone\tgreen\tyellow\tA\tcolor\tIMAGE\ts\tl2\t\tdev",
    "12\tWhich one?\tnone\tNa\tNA\tgreen\tyellow\tA\tcolor\tIMAGE\ts\tl2\t\tdev",
    "1000007\tWhich one?\t\tblue\tred\t\t\tB\tcolor\tIMAGE\ts\tl2\t\tdev",
)


def make(checkout: pathlib.Path) -> dict:
    for name in ("torch", "shortuuid", "llava", "llava.constants", "llava.conversation", "llava.model", "llava.model.builder", "llava.utils", "llava.mm_utils", "PIL", "tqdm"):
        sys.modules[name] = mock.MagicMock()
    sys.modules["llava.constants"].DEFAULT_IMAGE_TOKEN = "<image>"
    sys.modules["tqdm"].tqdm = lambda rows, total: rows
    spec = importlib.util.spec_from_file_location("model_vqa_mmbench", checkout / "llava/eval/model_vqa_mmbench.py")
    spec.loader.exec_module(official := importlib.util.module_from_spec(spec))
    tokenizer, model, conversation = mock.MagicMock(), mock.MagicMock(), mock.MagicMock()
    tokenizer.batch_decode.return_value = ["A"]
    model.config.mm_use_im_start_end = False
    official.load_pretrained_model = lambda *_: (tokenizer, model, None, 0)
    official.get_model_name_from_path = lambda path: "model"
    official.shortuuid.uuid = lambda: "id"
    official.conv_templates = {"v1": conversation}
    conversation.copy.return_value = conversation
    table, asked = HEAD + "\n".join(ROWS) + "\n", {}
    with tempfile.TemporaryDirectory() as held:
        (pathlib.Path(held) / "table.tsv").write_text(table)
        for language in ("en", "cn"):
            conversation.append_message.reset_mock()
            official.eval_model(types.SimpleNamespace(model_path="m", model_base=None, question_file=f"{held}/table.tsv", num_chunks=1, chunk_idx=0, answers_file=f"{held}/a/answers.jsonl", conv_mode="v1", all_rounds=False, single_pred_prompt=True, lang=language,
                                                      temperature=0, top_p=None, num_beams=1))
            asked[language] = [call.args[1] for call in conversation.append_message.call_args_list if call.args[1] is not None]
        options = [json.loads(line)["options"] for line in (pathlib.Path(held) / "a/answers.jsonl").read_text().splitlines()]
    return {"table": table, "asked": asked, "options": options}
