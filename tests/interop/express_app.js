// The Express app of the tests, with the real packages. The path says what to do, as in shared_app.
// STORE is the path of a session-file-store, or "none": then a session knows the id it was asked
// for, which it is only when the cookie's signature is right.
'use strict';

const express = require('express');
const session = require('express-session');
const FileStore = require('session-file-store')(session);

class NoStore extends session.Store {
  get(sid, callback) {
    callback(null, { cookie: {}, verified: sid });
  }

  set(sid, data, callback) {
    callback();
  }

  destroy(sid, callback) {
    callback();
  }
}

const quiet = { logFn: () => {}, reapInterval: -1 };
const store = process.env.STORE === 'none'
  ? new NoStore()
  : new FileStore({ path: process.env.STORE, ...quiet });

const app = express();
app.use(express.json());
app.use(session({
  secret: ['new secret', 'old secret'],
  resave: process.env.RESAVE === 'yes',
  saveUninitialized: false,
  store,
}));

function answer(request, response) {
  const { cookie, __lastAccess, ...data } = request.session || {};
  response.json({ id: request.sessionID, session: data });
}

app.get('/see', answer);
app.get('/login/:user', (request, response, next) => {
  request.session.regenerate((error) => {
    if (error) return next(error);
    request.session.user = request.params.user;
    return answer(request, response);
  });
});
app.get('/remember/:user', (request, response) => {
  request.session.user = request.params.user;
  request.session.cookie.maxAge = 86400000;
  answer(request, response);
});
app.get('/count', (request, response) => {
  request.session.count = (request.session.count || 0) + 1;
  answer(request, response);
});
app.get('/logout', (request, response, next) => {
  request.session.destroy((error) => (error ? next(error) : answer(request, response)));
});
app.post('/put', (request, response) => {
  Object.assign(request.session, request.body);
  answer(request, response);
});

const server = app.listen(0, '127.0.0.1', () => {
  console.log(`listening ${server.address().port}`);
});
