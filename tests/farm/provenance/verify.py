"""Verifies provenance with securesystemslib and in-toto-attestation, which share no code with the farm.

Usage: verify.py PUBLIC-KEY-PEM PROVENANCE PACKAGE
"""

import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import resource_descriptor_pb2
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementPb
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

key_file, provenance, package = map(Path, sys.argv[1:])
public = load_pem_public_key(key_file.read_bytes())
# The farm's key id is the name of the key file in the repository.
key = SSlibKey.from_crypto(public, keyid=key_file.stem)
envelope = Envelope.from_dict(json.loads(provenance.read_bytes()))
assert envelope.payload_type == "application/vnd.in-toto+json", envelope.payload_type
assert list(envelope.verify([key], 1)) == [key_file.stem]

# Unknown fields are errors.
statement = json_format.Parse(envelope.payload, StatementPb())
Statement.copy_from_pb(statement).validate()
assert statement.predicate_type == "https://slsa.dev/provenance/v1", statement.predicate_type
predicate = json_format.ParseDict(json_format.MessageToDict(statement.predicate), provenance_pb2.Provenance())
definition, run = predicate.build_definition, predicate.run_details
assert definition.build_type and run.builder.id
assert run.metadata.started_on.seconds <= run.metadata.finished_on.seconds
for dependency in definition.resolved_dependencies:
    assert isinstance(dependency, resource_descriptor_pb2.ResourceDescriptor)
    assert dependency.uri or dependency.digest

found = hashlib.sha256(package.read_bytes()).hexdigest()
subjects = {subject.name: subject.digest["sha256"] for subject in statement.subject}
assert subjects.get(package.name) == found, subjects
print(f"{package.name} of {dict(definition.external_parameters)['tag']}")
