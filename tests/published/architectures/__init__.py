"""Architectures of the published compile logs, written for the tests from their papers. They are not the product's."""
