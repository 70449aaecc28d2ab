#!/usr/bin/env bash
# GRPO with OpenRLHF 0.11, rewarded by an objective of this service, on one node of 8 GPUs:
#
#   REWARD_URL=http://reward-0:8000/openrlhf/helpful-and-harmless/get_reward examples/openrlhf_grpo.sh
#
# Several replicas: their URLs with commas between. A key: http://any:KEY@reward-0:8000/...
set -euo pipefail

exec python -m openrlhf.cli.train_ppo_ray \
  --reward.remote_url "${REWARD_URL:?the URL of an objective}" \
  --actor.model_name_or_path "${POLICY:-Qwen/Qwen3-8B}" \
  --actor.num_nodes 1 \
  --actor.num_gpus_per_node 8 \
  --ref.num_nodes 1 \
  --ref.num_gpus_per_node 8 \
  --vllm.num_engines 4 \
  --vllm.tensor_parallel_size 2 \
  --vllm.gpu_memory_utilization 0.6 \
  --vllm.enable_sleep \
  --train.colocate_all \
  --ds.enable_sleep \
  --ds.zero_stage 3 \
  --ds.param_dtype bf16 \
  --ds.packing_samples \
  --actor.gradient_checkpointing_enable \
  --data.prompt_dataset "${PROMPTS:?a data set of prompts}" \
  --data.input_key prompt \
  --data.apply_chat_template \
  --data.max_len 3072 \
  --rollout.max_new_tokens 1024 \
  --rollout.batch_size 128 \
  --rollout.n_samples_per_prompt 8 \
  --train.batch_size 1024 \
  --algo.advantage.estimator group_norm \
  --algo.kl.init_coef 1e-3 \
  --algo.kl.use_loss \
  --algo.kl.estimator k3 \
  --actor.adam.lr 1e-6 \
  --ckpt.output_dir "${OUTPUT:-./checkpoint}" \
  "$@"
