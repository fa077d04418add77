"""Which names speak of secrets, and which are those of hyper-parameters."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_dllogger.secret_names import is_secret_name

pytestmark = pytest.mark.newest_only


def words(text: str) -> list[str]:
    return text.split()


SECRETS = words("""
password passwords PASSWORD1 db_password PGPASSWORD passWord pass_word passwd DB.PASSWD pwd pwd2
passphrase passcode passkey secret secrets client_secret secretkey aws_secret_access_key
credential credentials creds api_key apiKey api-key APIKEY2 apikeys access_key accessKeys
access_key_id aws.access.key private_key private_keys Authorization auth authToken basicAuth
oauth2_token auth_method bearer cookie cookies webhook webhooks WebHook slack_webhook_url dsn
sentry_dsn jwt otp totp csrf_token db_pass db.pass mysql_pass sshpass keypass wandb_key wandb.key
WandB_key WANDBKEY ssh_key encryption_key signing_key azure_account_key OpenAIKey GITHUB_PAT
GitHubPAT github.pat HF_TOKEN HFToken hftoken hub_token push_to_hub_token user_token bot_token
auth_tokens api_tokens token1 token_value X-Auth-Token --hf-token pin PIN user_pin pin_code pincode
access_code mfa_code pw user_pw dbpw pswd kms_key gcp_sa_key host_key cert_key key_openai
keys.openai token_hf unlock_code seed_phrase mnemonic
""")

PARAMETERS = words("""
tokens_per_batch max_tokens num_tokens total_tokens vocab_tokens train_tokens num_virtual_tokens
additional_special_tokens special_tokens.pad_token tokenizer.eos.token token_dropout token_type
tokens_to_generate include_num_input_tokens_seen loss_per_token subtoken eos_token pad_token
unk_token cls_token mask_token class_token bos_token_id pad_token_id image_token_id
decoder_start_token_id tokenizer use_pretokenized moe_token_dispatcher_type key keys n_keys key_dim
keypoints num_key_value_heads mistral_key_value_heads metric_key key_indicator public_key hotkey
monkey query_key_layer_scaling map_i_key passes bypass compass pass_k pass_at_k num_pass lowpass
forward_pass passthrough pass_through bypass_wd path patience patch_size compat file_pattern
pin_memory dataloader_pin_memory pinned_memory spin author authors authority secretion_rate code
country_code error_code opcode lr optimizer.name seed amp batch_size weight_decay hidden_dropout
fp16 beta1 num_classes role_token task_token speaker_token src_token tgt_token pool_token
draft_tokens token_ids cookie_cutter cookiecutter pw_conv pad_token_mistral special_tokens.mistral
""")


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_known_by_its_name(name: str) -> None:
    """In any spelling, alone, nested, and whatever is in it."""
    for spelling in (name, f"trainer.{name}", f"{name}.value", f"{name}_3"):
        assert is_secret_name(spelling, "hunter2")


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("value", [12, 0.5, "12", "adam", True, None])
def test_a_hyper_parameter_is_none(name: str, value: object) -> None:
    """Those of DeepLearningExamples, of Hugging Face, Megatron and MMEngine are shown."""
    assert not is_secret_name(name, value)


NUMERIC = words("""
password passwords pwd2 pin otp auth_code token hf_token pin_code access_code db_pass api_key
encryption_key secret dsn
""")


@pytest.mark.parametrize("name", NUMERIC)
@pytest.mark.parametrize("value", [1234, "1234"])
def test_a_secret_can_be_a_number(name: str, value: object) -> None:
    """Digits, as a number or as text."""
    assert is_secret_name(name, value)


@pytest.mark.parametrize(
    "name", ["tokens", "tokens.train", "hf_tokens", "wandb_keys", "github_pats"]
)
def test_many_as_a_number_are_a_count(name: str) -> None:
    """And text is a secret; as a count passes what is spelt like one."""
    assert not any(is_secret_name(name, value) for value in (300, 3e11, "300", "300B", "1.5 T"))
    assert is_secret_name(name, "300B-hunter2")


@pytest.mark.parametrize("name", ["pass", "pat"])
def test_a_pass_is_one_and_so_is_patience(name: str) -> None:
    """Text of this name alone is a secret, a number is not."""
    assert is_secret_name(name, "hunter2")
    assert not is_secret_name(name, 3)


def test_true_and_false_hold_no_secret() -> None:
    """A flag says whether there is one."""
    assert not is_secret_name("pin", True)
    assert not is_secret_name("use_hub_token", False)
    assert not is_secret_name("use_password", True)
    assert not is_secret_name("use_auth_token", True)


@pytest.mark.parametrize(
    "name", ["api_key_count", "webhook_count", "jwt_len", "auth_loss", "secret_sharer_exposure"]
)
def test_a_number_that_measures_is_none(name: str) -> None:
    """Text of this name is one all the same, and so is a number that is not the last word's."""
    assert not any(is_secret_name(name, value) for value in (3, 0.5, "3"))
    assert is_secret_name(name, "hunter2")
    assert is_secret_name(f"{name}_password", 3)


@pytest.mark.parametrize("value", ["<|user|>", "<s>", "</s>", "[CLS]", "[/INST]", "[unused]"])
def test_a_special_token_is_known_by_its_form(value: str) -> None:
    """Where the name is one of a token; a password may look as it likes."""
    assert is_secret_name("user_token", value) is (value == "[unused]")
    assert is_secret_name("bot_token", f"{value}hunter2")
    assert is_secret_name("user_password", value)


@pytest.mark.parametrize("value", ["/", "/home/me", "~/x", "./x", "C:\\x"])
def test_the_working_directory_is_no_password(value: str) -> None:
    """It is called as many a password is, and is a path."""
    assert not is_secret_name("pwd", value)
    assert not is_secret_name("env.OLDPWD", value)
    assert is_secret_name("db_pwd", value)
    assert is_secret_name("pwd", f"hunter2{value}")


@given(name=st.text(), value=st.none() | st.text() | st.integers() | st.floats())
def test_any_name_has_an_answer(name: str, value: object) -> None:
    """And with a password in it, it is a secret."""
    assert is_secret_name(name, value) in (True, False)
    assert is_secret_name(f"{name}_password", value)
    assert is_secret_name(f"{name}.api_key", value)


@pytest.mark.parametrize("piece", ["a", ".", "_", "aB", "token", "key_", "a.", "1"])
def test_the_time_is_bounded(piece: str) -> None:
    """A name of a megabyte takes no longer than one of a page."""
    name = piece * (2**20 // len(piece))
    began_s = time.process_time()
    is_secret_name(name, "x")
    assert time.process_time() - began_s < 1.0
    assert is_secret_name(f"{name}_password", "x")
