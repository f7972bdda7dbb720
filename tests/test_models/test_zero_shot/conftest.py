import json
import shutil

import pytest

WORDS = 'a,photo,of,the,cat,dog,red,car,.,my,remote,control'


@pytest.fixture(scope='session')
def siglip_text_dir(siglip_dir, tmp_path_factory):
    """The tiny SigLIP with a tokenizer of a few words."""
    from transformers import BertTokenizerFast

    folder = tmp_path_factory.mktemp('siglip') / 'text'
    shutil.copytree(siglip_dir, folder)
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *WORDS.split(',')]
    (folder / 'vocab.txt').write_text('\n'.join(words))
    tokenizer = BertTokenizerFast(str(folder / 'vocab.txt'))
    tokenizer.save_pretrained(folder)
    path = folder / 'open_clip_config.json'
    config = json.loads(path.read_text())
    config['model_cfg']['text_cfg']['hf_tokenizer_name'] = 'any'
    path.write_text(json.dumps(config))
    return folder
