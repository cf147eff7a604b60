// A page that the node does not trust asks for its token, and goes on with that.

import { $, put } from './dom.js';
import { ApiError, api, useToken } from './api.js';

/** Waits until the node answers this page: its `GET /node`. While it is locked, `hide` is not shown. */
export async function unlocked(hide) {
  for (;;) {
    try {
      const node = await api('GET', '/node');
      $('locked').hidden = true;
      for (const element of hide) element.hidden = false;
      return node;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status !== 401 && error.status !== 403) {
        await new Promise((resolve) => setTimeout(resolve, 1_000));
        continue;
      }
      for (const element of hide) element.hidden = true;
      await asked();
    }
  }
}

function asked() {
  $('locked').hidden = false;
  $('token').focus();
  return new Promise((resolve) => {
    $('token-form').onsubmit = (event) => {
      event.preventDefault();
      const again = $('token-wrong').textContent !== '';
      useToken($('token').value.trim());
      put('token-wrong', again ? 'That is not the token either. It changes with each start of the node.' : 'That is not the token of this run.');
      resolve();
    };
  });
}
