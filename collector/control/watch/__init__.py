"""
Watches the bytes that a load balancer in front of Splunk has passed on, beside those that the tasks say they sent.

From `series` (bytes by the minute, which `cloudwatch`, `prometheus`, `files` and `demo` bring) by `course` (windows of
five minutes) to `normal` and `ratio` (what they have been), and `judge`, which says what has become of that: findings.
"""
