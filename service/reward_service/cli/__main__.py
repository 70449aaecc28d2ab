"""`python -m reward_service.cli`, for where the script is not on the path."""

from reward_service.cli.main import main

main()
