"""
What AWS's codes mean: which of them pass, and what a person can do about the others.
"""

from __future__ import annotations

#: What AWS says to whoever may not do what is asked.
DENIED = frozenset({"403", "AccessDenied", "AccessDeniedException", "AllAccessDisabled", "KMSAccessDeniedException"})
#: What can be done about a refusal, by AWS's code for it.
ADVICE = {
    **dict.fromkeys(DENIED, "let Collector's role do that there"),
    "InvalidSignatureException": "the secret does not belong to the key, or this machine's clock is wrong",
    "LimitExceededException": "AWS asks for a slower pace, and the batch waits",
    "ProvisionedThroughputExceededException": "the stream has too few shards for this; the batch waits",
    "AWS.SimpleQueueService.NonExistentQueue": "create the queue, or name another one",
    "QueueDoesNotExist": "create the queue, or name another one",
    "ResourceNotFoundException": "create the stream, or name another one or its region",
    "ThrottlingException": "AWS asks for a slower pace, and the batch waits",
    "UnrecognizedClientException": "these credentials are not known there; look at which ones won",
    "ExpiredToken": "the credentials have run out; where they come from must renew them",
    "ExpiredTokenException": "the credentials have run out; where they come from must renew them",
    "InvalidAccessKeyId": "these credentials are not known there; look at which ones won: the environment's come first",
    "NoSuchBucket": "create the bucket, or name another one",
    "PermanentRedirect": "the bucket lies in another region; name that with region=",
    "AuthorizationHeaderMalformed": "the bucket may lie in another region; name that with region=",
    "RequestTimeTooSkewed": "set this machine's clock right",
    "SignatureDoesNotMatch": "the secret does not belong to the key",
    "SlowDown": "AWS asks for a slower pace, and the batch waits",
}
#: The same of a role that is to be taken on.
ROLE_ADVICE = {
    **ADVICE,
    "AccessDenied": "let Collector's own role do sts:AssumeRole on it, and its trust policy let that in; for the "
    "tag of a tenant, both must allow sts:TagSession",
    "InvalidClientTokenId": ADVICE["InvalidAccessKeyId"],
    "PackedPolicyTooLarge": "shorten the tenant's id",
    "RegionDisabledException": "switch STS on in that region, or name another with region=",
}
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException"})
#: What becomes of a batch otherwise.
WAITS = "the batch is kept and tried again"
#: What AWS says to whoever is too fast: the codes that botocore takes for that, those of its keys, and what Firehose
#: and S3 say instead.
THROTTLES = frozenset({
    "BandwidthLimitExceeded", "KMS.ThrottlingException", "KMSThrottlingException", "KmsThrottled",
    "LimitExceededException", "PriorRequestNotComplete", "ProvisionedThroughputExceededException",
    "RequestLimitExceeded", "RequestThrottled", "RequestThrottledException", "ServiceUnavailableException", "SlowDown",
    "ThrottledException", "Throttling", "ThrottlingException", "TooManyRequestsException",
})  # fmt: skip
#: After one of these nobody knows whether it was done. A 503 was turned away at the door.
AMBIGUOUS_STATUS = frozenset({500, 502, 504})
