"""Where AWS differs from what the embedded AWS answers: a small endpoint is deployed, looked at and destroyed."""
