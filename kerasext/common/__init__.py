"""Small helpers of all layers."""

from kerasext.common.atomic_file import (
    atomic_file as atomic_file,
    atomic_path as atomic_path,
    check_replaceable as check_replaceable,
    export_target as export_target,
)
from kerasext.common.durable import write_at as write_at
from kerasext.common.json_text import to_json as to_json
from kerasext.common.optional_package import optional_package as optional_package
