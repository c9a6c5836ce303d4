"""Deliver results of cases to destinations: a durable queue, senders for each kind of address, notifications."""
