#!/usr/bin/env bash
# GRPO with verl 0.9, rewarded by an objective of this service, on one node of 8 GPUs:
#
#   pip install reward-service
#   export REWARD_SERVICE_URL=http://reward-0:8000,http://reward-1:8000 REWARD_SERVICE_API_KEY=...
#   TRAIN=train.parquet VALIDATION=test.parquet examples/verl_grpo.sh
set -euo pipefail

exec python -m verl.trainer.main_ppo \
  reward.reward_manager.source=importlib \
  reward.reward_manager.name=ServiceRewardManager \
  reward.reward_manager.module.path=pkg://reward_service.client.trainers.verl \
  +reward.reward_kwargs.url="'${REWARD_SERVICE_URL:?where the service is}'" \
  +reward.reward_kwargs.objective="${OBJECTIVE:-helpful-and-harmless}" \
  algorithm.adv_estimator=grpo \
  algorithm.use_kl_in_reward=False \
  data.train_files="${TRAIN:?a parquet file of prompts}" \
  data.val_files="${VALIDATION:?a parquet file of prompts}" \
  data.train_batch_size=128 \
  data.max_prompt_length=2048 \
  data.max_response_length=1024 \
  actor_rollout_ref.model.path="${POLICY:-Qwen/Qwen3-8B}" \
  actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.actor.ppo_mini_batch_size=128 \
  actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4 \
  actor_rollout_ref.actor.use_kl_loss=True \
  actor_rollout_ref.actor.kl_loss_coef=0.001 \
  actor_rollout_ref.actor.kl_loss_type=low_var_kl \
  actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8 \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.tensor_model_parallel_size=2 \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
  actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8 \
  trainer.n_gpus_per_node=8 \
  trainer.nnodes=1 \
  trainer.total_epochs=1 \
  "$@"
