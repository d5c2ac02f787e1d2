"""The nodes of tree-sitter's grammars in which the constants of programs stand.

One table serves all languages: their grammars name different things differently.
"""

from __future__ import annotations

GRAMMARS = {
    ".c": "c",
    **dict.fromkeys((".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp", ".cu", ".cuh"), "cuda"),
    ".rs": "rust",
    ".go": "go",
    **dict.fromkeys((".js", ".mjs", ".cjs", ".jsx"), "javascript"),
}
"""The grammar of CUDA extends that of C++."""

DECLARATIONS = {  # type of the node: where the name is, and where the value
    "init_declarator": ("declarator", "value"),  # C
    "enumerator": ("name", "value"),
    "preproc_def": ("name", "value"),
    "field_declaration": ("declarator", "default_value"),  # C++
    "optional_parameter_declaration": ("declarator", "default_value"),
    "const_item": ("name", "value"),  # Rust
    "static_item": ("name", "value"),
    "let_declaration": ("pattern", "value"),
    "const_spec": ("name", "value"),  # Go
    "var_spec": ("name", "value"),
    "short_var_declaration": ("left", "right"),
    "variable_declarator": ("name", "value"),  # JavaScript
    "assignment_pattern": ("left", "right"),
    "field_definition": ("property", "value"),
}
REBINDINGS = {  # type of the node: where the names are that it binds again
    "assignment_expression": "left",
    "augmented_assignment_expression": "left",
    "compound_assignment_expr": "left",
    "assignment_statement": "left",
    "update_expression": "argument",
    "inc_statement": None,
    "dec_statement": None,
    "pointer_expression": "argument",  # C's `&name`
    "unary_expression": "operand",  # Go's `&name`
    "reference_expression": "value",  # Rust's `&mut name`
    "range_clause": "left",
    "for_in_statement": "left",
    "for_range_loop": "declarator",
    "for_expression": "pattern",
    "parameter_declaration": "declarator",
    "parameter": "pattern",
    "declaration": "declarator",  # C's `extern int name;`
}
ENTRIES = {  # type of the node: where the key is, and where the value
    "pair": ("key", "value"),  # JavaScript
    "initializer_pair": ("designator", "value"),  # C
    "field_initializer": ("field", "value"),  # Rust
    "keyed_element": ("key", "value"),  # Go
}
TABLES = {"object", "initializer_list", "literal_value", "struct_expression"}  # of entries
RECORDS = {"struct_expression": "name", "composite_literal": "type"}  # values of a named type
CONTAINERS = {
    "struct_specifier": "name",
    "class_specifier": "name",
    "class_declaration": "name",
    "impl_item": "type",
}
FUNCTIONS = {
    "function_definition": "declarator",
    "function_item": "name",
    "function_declaration": "name",
    "generator_function_declaration": "name",
    "method_declaration": "name",
    "method_definition": "name",
    "arrow_function": None,
    "function_expression": None,
    "func_literal": None,
    "closure_expression": None,
    "lambda_expression": None,
}
PARAMETERS = {"optional_parameter_declaration", "assignment_pattern"}
FIELDS = {"field_declaration", "field_definition"}
IDENTIFIERS = {"identifier", "field_identifier", "property_identifier", "type_identifier"}
DECLARATORS = IDENTIFIERS | {"array_declarator", "pointer_declarator"}
