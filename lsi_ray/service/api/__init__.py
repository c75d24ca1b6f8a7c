"""The HTTP API: LSI and OpenAI surfaces over one `Backend`; pure FastAPI, without Ray."""
