"""What a running training shares with the outside: a mailbox out, a command queue in."""
