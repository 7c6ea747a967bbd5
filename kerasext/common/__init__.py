"""Small helpers of all layers."""

from kerasext.common.atomic_file import (
    check_replaceable as check_replaceable,
    file_made_from as file_made_from,
    renamed_when_written as renamed_when_written,
    take_permissions as take_permissions,
)
from kerasext.common.durable import replace_durably as replace_durably, write_at as write_at
from kerasext.common.json_text import to_json as to_json
from kerasext.common.optional_package import optional_package as optional_package
